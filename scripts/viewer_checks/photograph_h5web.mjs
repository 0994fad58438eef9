// Opens files in H5Web, in a headless browser, and photographs what it shows.
//
//   node photograph_h5web.mjs PYTHON BROWSER SITE SHOTS NAME...
//
// SITE holds the page and the files NAME.h5, and is served from loopback. For each file three views
// are taken: the default plot of the root; another row of it; the images of train, at the last row.
// SHOTS gets their screenshots, and shots.json: what H5Web said of each, and where its canvas is.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const [python, executablePath, site, shotsFolder, ...names] = process.argv.slice(2);
const TIMEOUT_MS = 60_000;
const ANOTHER_ROW = 7;

const selectedTab = (page) => page.locator('[role="tab"][aria-selected="true"]').last();
// The slider of rows is the first of those without a name; the others set the limits of colours.
const rowSlider = (page) => page.locator('[role="slider"]:not([aria-label])').first();

/** Wait until the page shows a canvas that no longer changes, nor is what it was before. */
async function settled(page, before) {
  const deadline = Date.now() + TIMEOUT_MS;
  await page.locator("canvas").waitFor();
  let last = null;
  for (;;) {
    const shot = await page.locator("canvas").screenshot();
    if (last?.equals(shot) && !before?.equals(shot)) {
      return shot;
    }
    if (Date.now() > deadline) {
      throw new Error(before?.equals(shot) ? "the picture does not change" : "it never rests");
    }
    last = shot;
    await page.waitForTimeout(400); // two frames alike at once are no proof: rows load meanwhile
  }
}

async function goToRow(page, row) {
  const slider = rowSlider(page);
  await slider.focus();
  await slider.press(row === "last" ? "End" : "Home");
  for (let i = 0; row !== "last" && i < row; i += 1) {
    await slider.press("ArrowUp");
  }
}

async function photograph(page, address, name) {
  const shots = [];

  async function take(view) {
    const png = `h5web-${name}-${shots.length + 1}.png`;
    await page.screenshot({ path: `${shotsFolder}/${png}` });
    shots.push({
      name,
      view,
      png,
      tab: await selectedTab(page).textContent(),
      row: Number(await rowSlider(page).getAttribute("aria-valuenow")),
      canvas: await page.locator("canvas").boundingBox(),
    });
  }

  await page.goto(`${address}/index.html?file=${name}.h5`);
  const first = await settled(page, null);
  await take("as it opens");
  await goToRow(page, ANOTHER_ROW);
  await settled(page, first);
  await take("another row");
  await page.locator('[role="treeitem"][data-path="/train"]').click();
  await page.locator('[role="treeitem"][data-path="/train/images"]').click();
  const kept = await settled(page, null);
  await goToRow(page, "last");
  await settled(page, kept);
  await take("/train/images");
  return shots;
}

async function open(browser, address, name) {
  const page = await browser.newPage({ viewport: { width: 900, height: 680 } });
  page.setDefaultTimeout(TIMEOUT_MS);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  try {
    const shots = await photograph(page, address, name);
    if (errors.length) {
      throw new Error("the page had errors");
    }
    return shots;
  } catch (error) {
    const png = `${shotsFolder}/h5web-${name}-failed.png`;
    await page.screenshot({ path: png });
    const [what] = error.message.split("\n");
    throw new Error([`H5Web, ${name}.h5: ${what}; see ${png}`, ...errors].join("\n"));
  } finally {
    await page.close();
  }
}

const server = spawn(
  python,
  ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", site],
  { stdio: ["ignore", "pipe", "ignore"] },
);
let browser;
try {
  const [line] = await once(createInterface(server.stdout), "line");
  const address = `http://127.0.0.1:${line.match(/ port (\d+)/)[1]}`;
  // Pictures are drawn by WebGL, and SwiftShader is what draws it without a GPU.
  const args = ["--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic"];
  browser = await chromium.launch({ executablePath, args });
  const shots = [];
  for (const name of names) {
    shots.push(...(await open(browser, address, name)));
  }
  const said = { browser: browser.version(), shots };
  await writeFile(`${shotsFolder}/shots.json`, JSON.stringify(said, null, 1));
} catch (error) {
  console.error(`check-viewers: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  server.kill();
}
