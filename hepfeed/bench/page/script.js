"use strict";
// A heading that is clicked sorts its table: as numbers where cells begin with one; empty cells stay last.
// Tables that say a name once for several rows keep their order.
for (const table of document.querySelectorAll("main table")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if ([...body.rows].some((row) => !row.cells[0].textContent)) continue;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const number = (text) => (/^[-+.\d]/.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.ariaSort === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.ariaSort = down ? "descending" : "ascending";
      const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent }));
      rows.sort((a, b) => {
        if (!a.text || !b.text) return !a.text - !b.text;
        const order = number(a.text) - number(b.text);
        return (Number.isNaN(order) ? compare(a.text, b.text) : order) * (down ? -1 : 1);
      });
      body.append(...rows.map(({ row }) => row));
    });
  });
}
