// Links within the console.

/** Link to a document's page. `id` is an _id in plain notation, or extended JSON. */
export function inspectLink(id, namespace) {
  const query = new URLSearchParams({ id });
  if (namespace) query.set("namespace", namespace);
  return `#/document?${query}`;
}
