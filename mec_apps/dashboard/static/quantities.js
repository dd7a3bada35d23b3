// Numbers with units, as an operator reads them. Pure: no document, no clock.

const DECIMAL = ["", "k", "M", "G", "T"];
const BINARY = ["", "Ki", "Mi", "Gi", "Ti"];
export const UNKNOWN = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, without trailing zeros. */
export function digits(value) {
  if (!isNumber(value)) return UNKNOWN;
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2);
}

function scaled(value, step, prefixes, unit) {
  if (!isNumber(value)) return UNKNOWN;
  let power = 0;
  while (Math.abs(value) >= step && power < prefixes.length - 1) {
    value /= step;
    power += 1;
  }
  return `${digits(value)} ${prefixes[power]}${unit}`;
}

export const memory = (bytes) => scaled(bytes, 1024, BINARY, "B");
export const moved = (bytes) => scaled(bytes, 1000, DECIMAL, "B");
/** Unmeasured rates arrive as zero. */
export const rate = (bytesPerSecond) => (bytesPerSecond ? scaled(bytesPerSecond, 1000, DECIMAL, "B/s") : UNKNOWN);
export const milliseconds = (value) => (isNumber(value) ? `${digits(value)} ms` : UNKNOWN);
export const microseconds = (value) => {
  if (!isNumber(value) || value === 0) return UNKNOWN;
  return value >= 1000 ? milliseconds(value / 1000) : `${digits(value)} µs`;
};

/** A time span in words short enough for a table cell. */
export function ago(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  if (seconds < 1) return "now";
  if (seconds < 120) return `${Math.floor(seconds)} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** A half-open range the way people count: first and last block. */
export const blocks = (start, stop) => (stop - start === 1 ? `${start}` : `${start}–${stop - 1}`);
