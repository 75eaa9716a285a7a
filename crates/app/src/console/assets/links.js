// Addresses within the console.

/** The page of a document. `id` is an _id as people write it, or extended JSON. */
export function traceLink(id, namespace) {
  const query = new URLSearchParams({ id });
  if (namespace) query.set("namespace", namespace);
  return `#/document?${query}`;
}
