"use strict";
// Sorts tables by a click on a header and saves them as CSV. A cell's exact numbers are in its
// data-v: a value, or a value and the ends of its interval, which become columns of their own.
(() => {
  const numbers = (cell) => (cell.dataset.v ? cell.dataset.v.split(" ") : []);

  const compare = (a, b) => {
    const [x, y] = [numbers(a)[0], numbers(b)[0]];
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };

  const sort = (header) => {
    const table = header.closest("table");
    const place = header.cellIndex;
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const missing = (row) => (row.cells[place].textContent === "–" ? 1 : 0);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const last = missing(a) - missing(b);
      return last || compare(a.cells[place], b.cells[place]) * (up ? 1 : -1);
    });
    table.tBodies[0].append(...rows);
  };

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const csv = (table) => {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    const widths = heads.map((_, i) => Math.max(1, ...rows.map((r) => numbers(r.cells[i]).length)));
    const names = heads.flatMap((head, i) => {
      const name = head.textContent;
      return widths[i] === 1 ? [name] : [name, `${name} low`, `${name} high`];
    });
    const lines = rows.map((row) =>
      [...row.cells].flatMap((cell, i) => {
        const found = numbers(cell);
        if (!found.length) found.push(cell.textContent === "–" ? "" : cell.textContent);
        return Array.from({ length: widths[i] }, (_, k) => found[k] ?? "");
      }),
    );
    return [names, ...lines].map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
  };

  const save = (table) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv;charset=utf-8" }));
    link.download = `${table.id}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.className === "csv") save(document.getElementById(button.dataset.table));
    else if (button) sort(button.closest("th"));
  });
  // Folded parts are printed, too.
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
