// Values of Arrow as text, and as numbers for charts.
import {
  type Data,
  DataType,
  type DateMillisecond,
  type Field,
  type Timestamp,
  TimeUnit,
  type Vector,
} from "apache-arrow";

const UNIT_DIGITS = {
  [TimeUnit.SECOND]: 0,
  [TimeUnit.MILLISECOND]: 3,
  [TimeUnit.MICROSECOND]: 6,
  [TimeUnit.NANOSECOND]: 9,
};
const UNIT_NAMES = {
  [TimeUnit.SECOND]: "s",
  [TimeUnit.MILLISECOND]: "ms",
  [TimeUnit.MICROSECOND]: "µs",
  [TimeUnit.NANOSECOND]: "ns",
};
const CELL_CHARS_MAX = 2_000;

/** A column's type, short. */
export function typeName({ type }: Field): string {
  if (DataType.isTimestamp(type)) {
    return `Timestamp(${UNIT_NAMES[type.unit]}${type.timezone ? `, ${type.timezone}` : ""})`;
  }
  return String(type).replace(/^Utf8View$|^LargeUtf8$/, "Utf8");
}

/** Whether values of the type stand at the right. */
export function isNumeric(type: DataType): boolean {
  return DataType.isInt(type) || DataType.isFloat(type) || DataType.isDecimal(type);
}

export function isTemporal(type: DataType): boolean {
  return DataType.isTimestamp(type) || DataType.isDate(type);
}

/** The value of a row as text; null where there is none. */
export function textOf(vector: Vector, row: number): string | null {
  const value: unknown = vector.get(row);
  if (value === null || value === undefined) {
    return null;
  }
  const { type } = vector;
  const [data] = vector.data;
  if (DataType.isTimestamp(type) && data !== undefined) {
    return timestamp(type, data as Data<Timestamp>, row);
  }
  const text = scalar(value, type);
  return text.length > CELL_CHARS_MAX ? `${text.slice(0, CELL_CHARS_MAX)}…` : text;
}

function scalar(value: unknown, type: DataType): string {
  if (value === null || value === undefined) {
    return "null";
  }
  if (DataType.isDecimal(type)) {
    return decimal(value as Uint32Array, type.scale);
  }
  if (DataType.isDate(type)) {
    const text = new Date(Number(value)).toISOString();
    return (type as DateMillisecond).unit === 1 && !text.endsWith("T00:00:00.000Z")
      ? text
      : text.slice(0, 10);
  }
  if (DataType.isTimestamp(type)) {
    return new Date(Number(value)).toISOString().replace("T", " ").replace("Z", "");
  }
  if (DataType.isTime(type)) {
    return clock(BigInt(value as number | bigint), UNIT_DIGITS[type.unit]);
  }
  if (value instanceof Uint8Array) {
    return `0x${[...value].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  }
  if (DataType.isDictionary(type)) {
    return scalar(value, type.dictionary);
  }
  if (typeof value === "object") {
    return nested(value, type);
  }
  return String(value);
}

function nested(value: object, type: DataType): string {
  if (DataType.isMap(type) || DataType.isStruct(type)) {
    const entries = [...(value as Iterable<[unknown, unknown]>)];
    const child = (at: number): DataType =>
      DataType.isMap(type) ? type.valueType : (type.children[at]?.type ?? type);
    return `{${entries.map(([name, part], at) => `${String(name)}: ${quoted(part, child(at))}`).join(", ")}}`;
  }
  if (Symbol.iterator in value) {
    const inner = (type.children as Field[] | undefined)?.[0]?.type ?? type;
    return `[${[...(value as Iterable<unknown>)].map((part) => quoted(part, inner)).join(", ")}]`;
  }
  return String(value);
}

function quoted(value: unknown, type: DataType): string {
  return typeof value === "string" ? JSON.stringify(value) : scalar(value, type);
}

/** Two's complement in words of 32 bits, the least first. */
function decimal(words: Uint32Array, scale: number): string {
  let unsigned = 0n;
  for (const [at, word] of words.entries()) {
    unsigned |= BigInt(word) << BigInt(32 * at);
  }
  const signed = BigInt.asIntN(32 * words.length, unsigned);
  return fraction(signed, scale);
}

function fraction(value: bigint, digits: number): string {
  const [sign, size] = value < 0n ? ["-", -value] : ["", value];
  const text = size.toString().padStart(digits + 1, "0");
  return digits <= 0 ? sign + text : `${sign}${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** From the stored integer, since a number has too few digits for nanoseconds. */
function timestamp(type: Timestamp, data: Data<Timestamp>, row: number): string {
  const digits = UNIT_DIGITS[type.unit];
  const stored = BigInt((data.values as BigInt64Array)[row] ?? 0);
  const perSecond = 10n ** BigInt(digits);
  const part = ((stored % perSecond) + perSecond) % perSecond;
  const seconds = Number((stored - part) / perSecond);
  const date = new Date(seconds * 1_000);
  if (Number.isNaN(date.getTime())) {
    return `${stored} (beyond the calendar)`;
  }
  const fraction =
    part === 0n
      ? ""
      : `.${part
          .toString()
          .padStart(digits, "0")
          .replace(/(000)+$/, "")}`;
  const zone = type.timezone ? ` ${type.timezone === "+00:00" ? "UTC" : type.timezone}` : "";
  // An instant is told in UTC, as it is stored.
  const suffix = zone && zone !== " UTC" ? ` UTC (${type.timezone})` : zone;
  return `${date.toISOString().slice(0, 19).replace("T", " ")}${fraction}${suffix}`;
}

function clock(value: bigint, digits: number): string {
  const perSecond = 10n ** BigInt(digits);
  const seconds = Number(value / perSecond);
  const two = (count: number) => String(Math.floor(count)).padStart(2, "0");
  const part = value % perSecond;
  const fraction = part === 0n ? "" : `.${part.toString().padStart(digits, "0")}`;
  return `${two(seconds / 3_600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}${fraction}`;
}

/** The value of a row as a number; null where there is none. Times are in seconds of Unix time. */
export function numberOf(vector: Vector, row: number): number | null {
  const value: unknown = vector.get(row);
  if (value === null || value === undefined) {
    return null;
  }
  const { type } = vector;
  if (isTemporal(type)) {
    return Number(value) / 1_000;
  }
  return DataType.isDecimal(type) ? Number(decimal(value as Uint32Array, type.scale)) : Number(value);
}
