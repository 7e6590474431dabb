// Prints what AsyncAPI's own parser finds in the document on standard input, as JSON.
const { Parser } = require("@asyncapi/parser");
const { readFileSync } = require("node:fs");

new Parser().parse(readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const operations = document ? document.operations().all() : [];
  console.log(
    JSON.stringify({
      operations: operations.map((one) => [one.action(), one.id(), one.messages().length]),
      diagnostics: diagnostics.map((one) => ({
        severity: one.severity,
        text: `${one.code} at ${one.path.join(".")}: ${one.message}`,
      })),
    }),
  );
});
