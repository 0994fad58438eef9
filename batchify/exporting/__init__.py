"""Write the rows of built files in the formats of other tools: folders, tar shards, tables."""
