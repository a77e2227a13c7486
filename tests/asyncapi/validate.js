// Reads an AsyncAPI document from stdin, prints what AsyncAPI's own parser has to say, as JSON.
const { Parser } = require("@asyncapi/parser");
const { readFileSync } = require("fs");

new Parser().validate(readFileSync(0, "utf8")).then((diagnostics) => console.log(JSON.stringify(diagnostics)));
