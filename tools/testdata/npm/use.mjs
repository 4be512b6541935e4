// Calls tools of the server at argv[2] with the TypeScript SDK's client, in the
// revisions that argv[3] ("auto" or "legacy") negotiates, and prints what came.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const client = new Client({ name: "use", version: "1" }, { versionNegotiation: { mode: process.argv[3] } });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
console.log("speaks", client.getNegotiatedProtocolVersion());
console.log("tools", (await client.listTools()).tools.map((t) => t.name).join(" "));
const call = async (name, args) => {
  try {
    const r = await client.callTool({ name, arguments: args });
    console.log(name, r.isError, JSON.stringify(r.structuredContent));
  } catch (e) {
    console.log(name, e.code, e.message);
  }
};
await call("shop.refunds.create", { order: "1001", amount: 4.5, intent: "charged twice" });
await call("shop.refunds.create", { order: 1 });
await call("shop.orders.delete", {});
await client.close();
