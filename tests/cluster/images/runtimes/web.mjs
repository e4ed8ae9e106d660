// HTTP by Node: `get URL...` prints a page in a line each, `resolve NAME` what its second resolver (c-ares) finds, `serve PORT` sends
// back what it is given.
import { resolve4 } from "node:dns/promises";
import http from "node:http";

const [verb, ...words] = process.argv.slice(2);

async function page(url) {
  try {
    const answer = await fetch(url);
    return (await answer.text()).trim();
  } catch (error) {
    return error.cause?.code === "ENOTFOUND" ? "unknown" : `${error}: ${error.cause}`;
  }
}

function serve(request, answer) {
  if (request.method === "GET") answer.end("Node\n");
  else request.pipe(answer);
}

if (verb === "serve") http.createServer(serve).listen(Number(words[0]));
else for (const word of words) console.log(verb === "get" ? await page(word) : (await resolve4(word)).join(" "));
