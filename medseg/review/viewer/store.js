// This file keeps the reviews in the browser's own storage (IndexedDB), so that a closed tab loses nothing.
//
// A *record* is what a review consists of, as plain data. Its key names the page (the time of its making), the case and
// the hash of the scan, so that a page that was made anew never shows decisions about other masks.

const DATABASE = "medseg-review";
const TABLE = "reviews";

// {kept: whether the browser stores, load(key), save(key, record)}. Without storage, records live as long as the tab.
async function openStore() {
  try {
    const database = await opened();
    const step = (mode, act) =>
      new Promise((resolve, reject) => {
        const request = act(database.transaction(TABLE, mode).objectStore(TABLE));
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    await step("readwrite", (table) => table.put(true, "tried")); // private windows may open it and refuse to write
    return {
      kept: true,
      load: (key) => step("readonly", (table) => table.get(key)),
      save: (key, record) => step("readwrite", (table) => table.put(record, key)),
    };
  } catch {
    const records = new Map();
    return { kept: false, load: async (key) => records.get(key), save: async (key, record) => void records.set(key, record) };
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
}
