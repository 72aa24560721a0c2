// Start a job over HTTP and wait for its end, with the types that openapi-typescript makes: node client.js URL TOKEN
import createClient from "openapi-fetch";
import type { paths } from "./scattersphere";

declare const process: { argv: string[] };
const [base, token] = process.argv.slice(2);
const jobs = createClient<paths>({ baseUrl: base, headers: { Authorization: `Bearer ${token}` } });

const { data: started, error } = await jobs.POST("/api/v1/jobs/{job}/runs", {
  params: { path: { job: "steps" }, header: { "Idempotency-Key": "from TypeScript" } },
  body: { params: { n: 1 } },
});
if (error) throw new Error(`${error.code}: ${error.detail}`); // a problem document (RFC 9457)

const { data: ended } = await jobs.GET("/api/v1/runs/{run}/wait", {
  params: { path: { run: started.run }, query: { timeout: 600 } },
});
console.log(`run ${ended?.run} ${ended?.state}`);

const { error: wrong } = await jobs.GET("/api/v1/runs/{run}", { params: { path: { run: 999 } } });
console.log(wrong?.code);
