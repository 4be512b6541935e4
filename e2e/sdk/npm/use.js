// What an agent program on Node.js does with an account, through the packages
// of the services: as ../services.go does in Go. PORT is the service's port.
"use strict";

const port = Number(process.env.PORT || 443);

async function stripe() {
  const Stripe = require("stripe");
  // stripe-node wants the key, and reads no variable by itself.
  const client = new Stripe(process.env.STRIPE_SECRET_KEY, { port, maxNetworkRetries: 0 });
  const made = await client.customers.create({ email: "ann@customer.example", metadata: { order: "42&43" } });
  console.log("customer", made.id, made.email, made.metadata.order);
  for await (const customer of client.customers.list({ limit: 1 })) console.log("listed", customer.id);
  try {
    await client.customers.retrieve("cus_gone");
  } catch (refused) {
    console.log("refused", refused.statusCode, refused.code);
  }
}

async function openai() {
  const OpenAI = require("openai");
  const client = new OpenAI({ maxRetries: 0, ...(port !== 443 && { baseURL: `https://api.openai.com:${port}/v1` }) });
  const question = { model: "gpt-stand-in", messages: [{ role: "user", content: "how are you?" }] };
  const answer = await client.chat.completions.create(question);
  console.log("answer", answer.choices[0].message.content);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) text += chunk.choices[0].delta.content;
  console.log("streamed", text);
}

({ stripe, openai })[process.argv[2]]().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
