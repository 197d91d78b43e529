/** The server's own document of what crosses the wire, and values made after it. */

import { readFileSync } from "node:fs";

export interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly discriminator?: { readonly mapping: Readonly<Record<string, string>> };
}

const document = JSON.parse(readFileSync(new URL("../../../docs/openapi.json", import.meta.url), "utf8")) as {
  components: { schemas: Record<string, Schema> };
};

export const schemas = document.components.schemas;

export function resolve(schema: Schema): Schema {
  return schema.$ref === undefined ? schema : schemas[schema.$ref.split("/").at(-1)!]!;
}

/** A value of every field; of alternatives the one at `choice`, or the last. */
export function sample(given: Schema, choice = 0): unknown {
  const schema = resolve(given);
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return sample(options[Math.min(choice, options.length - 1)]!, choice);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[Math.min(choice, schema.enum.length - 1)];
  if (schema.type === "object") {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, field]) => [name, sample(field, choice)]));
  }
  if (schema.type === "array") return [sample(schema.items!, choice)];
  const plain: Record<string, unknown> = { string: "text", integer: 7, number: 2.5, boolean: true, null: null };
  return plain[schema.type!];
}
