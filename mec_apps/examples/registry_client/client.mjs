// The whole life of a service in the gRPC registry, from Node.js: an application instance registers over Mp1, its service
// over gRPC; it sends a heartbeat with KPIs, is found, is watched, and goes. Prints a line of JSON for each step.
//
//     npm ci && node client.mjs --platform http://127.0.0.1:8081 --registry 127.0.0.1:50051
//
// Where the platform asks for credentials: --token TOKEN, --registry https://HOST:PORT for its port over TLS, and
// NODE_EXTRA_CA_CERTS for an authority of your own.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { values: options } = parseArgs({
  options: {
    platform: { type: "string", default: "http://127.0.0.1:8081" },
    registry: { type: "string", default: "127.0.0.1:50051" },
    protos: { type: "string", default: fileURLToPath(new URL("../../../proto", import.meta.url)) },
    token: { type: "string", default: "" },
  },
});

const NAME = "node-example";
const DEADLINE_MS = 30_000;

function print(step, facts) {
  console.log(JSON.stringify({ step, ...facts }));
}

function openRegistry() {
  const definition = protoLoader.loadSync("mec_platform/rpc/v1/registry.proto", {
    includeDirs: [options.protos],
    keepCase: true, // names as in the .proto file
    longs: String, // revisions and bytes may be beyond what a number holds
    enums: String,
    arrays: true, // empty lists are there, as empty
  });
  const { ServiceRegistry } = grpc.loadPackageDefinition(definition).mec_platform.rpc.v1;
  const isSecure = options.registry.startsWith("https://");
  const credentials = isSecure ? grpc.credentials.createSsl(ownAuthority()) : grpc.credentials.createInsecure();
  return new ServiceRegistry(options.registry.replace("https://", ""), credentials);
}

// Node.js reads this file for its own connections; gRPC has to be given it.
function ownAuthority() {
  const file = process.env.NODE_EXTRA_CA_CERTS;
  return file ? readFileSync(file) : null;
}

const registry = openRegistry();

function metadata() {
  const entries = new grpc.Metadata();
  if (options.token) entries.set("authorization", `Bearer ${options.token}`);
  return entries;
}

function call(method, request) {
  const unary = promisify(registry[method]).bind(registry);
  return unary(request, metadata(), { deadline: Date.now() + DEADLINE_MS });
}

// Renew is a stream: keep it open, and send again after half of `shortest_interval_s`.
async function renew(heartbeats) {
  const stream = registry.Renew(metadata(), { deadline: Date.now() + DEADLINE_MS });
  stream.write({ heartbeats });
  stream.end();
  for await (const reply of stream) return reply;
  throw new Error("the platform ended the stream without an answer");
}

async function mp1(method, path, body) {
  const headers = options.token ? { authorization: `Bearer ${options.token}` } : {};
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(new URL(path, options.platform), {
    method,
    headers,
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json();
}

// What a service says of itself. Its lease asks for heartbeats at least every 30 s.
const description = {
  name: NAME,
  version: "1.0",
  transport: {
    id: "http",
    type: "TRANSPORT_TYPE_REST_HTTP",
    protocol: "HTTP",
    version: "1.1",
    endpoint: { uris: { values: ["http://127.0.0.1:9000/"] } },
  },
  serializer: "SERIALIZER_JSON",
  capabilities: { model: "smollm2", layers: { start: 0, stop: 12 }, trust_level: 1, labels: { language: "node" } },
  lease: { interval_s: 30 },
};

// Changes of services of this name, one by one. A client that loses its connection watches again with `after_revision`.
async function* changes(watch) {
  for await (const { revision, changes: found } of watch) {
    if (found.length === 0) yield { revision, kind: "BOOKMARK" };
    for (const { kind, service } of found) {
      yield { revision, kind: kind.replace("CHANGE_KIND_", ""), service_id: service.service_id };
    }
  }
}

async function main() {
  const { appInstanceId } = await mp1("POST", "/mec_app_support/v2/registrations", { appName: NAME });
  print("application", { app_instance_id: appInstanceId });

  const watch = registry.Watch({ names: [NAME] }, metadata());
  const seen = changes(watch);
  print("watching", (await seen.next()).value);
  try {
    const { service, revision } = await call("Register", {
      app_instance_id: appInstanceId,
      description,
      idempotency_key: `${NAME}-1`, // repeated after a lost answer, this gives the same service
    });
    print("registered", { service_id: service.service_id, revision });
    print("change", (await seen.next()).value);

    const kpis = { load: 0.25, tokens_per_s: 12.5, rtt_ms: 2, free_memory_bytes: "2000000000" };
    print("renewed", await renew([{ service_id: service.service_id, kpis }]));

    // The least loaded service that has blocks of the model and measured itself within the last minute.
    const { candidates } = await call("Discover", {
      model: "smollm2",
      names: [NAME],
      condition: "kpi.load < 0.8",
      preferences: [{ measure: "load", direction: "DIRECTION_MINIMISE" }],
      max_kpi_age_s: 60,
    });
    print("discovered", { found: candidates.map((each) => ({ id: each.service.service_id, score: each.score })) });
    const { chain, none } = await call("Chain", { model: "smollm2", blocks: { start: 0, stop: 12 }, trust_at_least: 1 });
    print("chain", chain ? { explanation: chain.explanation } : { reason: none.reason });
    print("kpis", (await call("Get", { service_id: service.service_id })).kpis);

    await call("Deregister", { service_id: service.service_id });
    print("change", (await seen.next()).value);
  } finally {
    watch.on("error", () => {}); // cancelling ends the stream with an error of its own
    watch.cancel();
    await mp1("DELETE", `/mec_app_support/v2/registrations/${appInstanceId}`);
  }
  print("done", {});
}

try {
  await main();
} catch (error) {
  console.error(`error: ${error.details || error.message}`);
  process.exitCode = 1;
} finally {
  registry.close();
}
