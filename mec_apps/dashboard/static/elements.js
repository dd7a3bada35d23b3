// Small pieces of document. Text from the platform only ever becomes text nodes, never markup.

/** An element with a class and children; strings become text. */
export function element(name, className = "", ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Sets text only where it differs, so that selections and screen readers are left in peace. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const drawn = new WeakMap();

/** Calls `draw` and puts what it returns into `target`, but only when `value` is another than last time. */
export function redraw(target, value, draw) {
  const key = JSON.stringify(value);
  if (drawn.get(target) === key) return;
  drawn.set(target, key);
  target.replaceChildren(...draw());
}

/** The coloured square that stands for a node. */
export function swatch(colour) {
  const square = element("span", "swatch");
  square.dataset.colour = colour;
  square.setAttribute("aria-hidden", "true");
  return square;
}

/**
 * Fills a table. A column is {title, cell(row), kind}, where `cell` gives text, or {text, colour, tag}; `kind` is a
 * class. Roles are spelled out because narrow screens lay rows out as cards, and that hides a table from assistants.
 */
export function fillTable(table, columns, rows, emptyText) {
  if (!table.tHead) {
    table.setAttribute("role", "table");
    const head = table.createTHead();
    head.setAttribute("role", "rowgroup");
    const titles = head.insertRow();
    titles.setAttribute("role", "row");
    for (const column of columns) {
      const cell = element("th", column.kind, column.title);
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      titles.append(cell);
    }
    table.createTBody().setAttribute("role", "rowgroup");
  }
  const body = table.tBodies[0];
  const shown = rows.length > 0 ? rows : [null];
  while (body.rows.length > shown.length) body.deleteRow(-1);
  shown.forEach((row, index) => {
    const line = body.rows[index] ?? body.insertRow();
    if (row === null) fillEmptyRow(line, columns.length, emptyText);
    else fillRow(line, columns, row);
  });
}

function fillEmptyRow(line, width, text) {
  redraw(line, { empty: text }, () => {
    const cell = element("td", "empty", text);
    cell.colSpan = width;
    cell.setAttribute("role", "cell");
    return [cell];
  });
  line.setAttribute("role", "row");
}

function fillRow(line, columns, row) {
  redraw(line, { columns: columns.length }, () => columns.map(makeCell));
  line.setAttribute("role", "row");
  columns.forEach((column, index) => {
    const given = column.cell(row);
    const content = typeof given === "string" ? { text: given } : given;
    redraw(line.cells[index], content, () => cellContent(content));
  });
}

function makeCell(column, index) {
  const cell = element(index === 0 ? "th" : "td", column.kind);
  if (index === 0) cell.scope = "row";
  cell.setAttribute("role", index === 0 ? "rowheader" : "cell");
  cell.dataset.title = column.title;
  return cell;
}

function cellContent({ text, colour, tag }) {
  const parts = [element("span", "", text)];
  if (colour !== undefined) parts.unshift(swatch(colour));
  if (tag) parts.push(element("span", "tag", tag));
  return [element("span", "content", ...parts)];
}
