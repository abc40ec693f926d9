// checklist.py for Node: registers checks by feature, and prints a line of JSON for each.

import { readFileSync } from "node:fs";

export const URL = process.env.CARAVAN_SCRIPTED_URL;
export const KEY = process.env.CARAVAN_KEY;
export const MODEL = process.env.CARAVAN_MODEL;
export const SAMPLES = JSON.parse(readFileSync(new globalThis.URL("samples.json", import.meta.url)));
export const TIMEOUT_MS = 30_000;

const checks = new Map();

export function feature(name, check) {
  checks.set(name, check);
}

export const said = (text) => [{ role: "user", content: text }];

// The error of `kind` that a call ends with.
export async function failure(kind, call) {
  let value;
  try {
    value = await call();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`no ${kind.name}, but ${JSON.stringify(value)}`);
}

export async function run() {
  const names = process.argv.length > 2 ? process.argv.slice(2) : [...checks.keys()];
  for (const name of names) {
    let ok = true;
    let note;
    try {
      note = await checks.get(name)();
    } catch (error) {
      ok = false;
      note = String(error);
      console.error(error);
    }
    console.log(JSON.stringify({ feature: name, ok, note: (note ?? "").slice(0, 400) }));
  }
  process.exit(0); // connections that are kept alive would hold it up
}
