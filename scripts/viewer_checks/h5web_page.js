// H5Web on one file: index.html?file=NAME

import { App } from "@h5web/app";
import { H5WasmLocalFileProvider } from "@h5web/h5wasm";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

import "@h5web/app/styles.css";

const name = new URLSearchParams(location.search).get("file");
const answer = await fetch(name);
if (!answer.ok) {
  throw new Error(`${name}: ${answer.status}`);
}

// The provider that reads a file of the user's disk piece by piece, as myHDF5 does.
const file = new File([await answer.blob()], name);
const viewer = createElement(H5WasmLocalFileProvider, { file }, createElement(App));
createRoot(document.getElementById("viewer")).render(viewer);
