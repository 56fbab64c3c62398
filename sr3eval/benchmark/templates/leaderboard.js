// A click on a column's heading sorts its table by it, the better first; another click the other way round.
// Rows without a value come last in either case.
for (const button of document.querySelectorAll(".results thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = heading.closest("table"), body = table.tBodies[0];
    const before = heading.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : button.dataset.ascending === "true";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => row.cells[heading.cellIndex].dataset.order;
    const isText = heading.cellIndex < 2;
    const compare = (a, b) => (isText ? value(a).localeCompare(value(b)) : Number(value(a)) - Number(value(b)));
    const rows = [...body.rows];
    const known = rows.filter((row) => value(row) !== "").sort((a, b) => (ascending ? 1 : -1) * compare(a, b));
    body.append(...known, ...rows.filter((row) => value(row) === ""));
  });
}
