// The rows of a statement, as the batches that they came in: nothing is copied.
import type { RecordBatch, Schema } from "apache-arrow";
import { textOf } from "./values.ts";

/** What a page keeps of one result: beyond it the statement is stopped. */
export const RESULT_BYTES_MAX = 512 << 20;

export class Result {
  schema: Schema | null = null;
  rows = 0;
  bytes = 0;
  /** Whether rows beyond `RESULT_BYTES_MAX` were left. */
  cut = false;
  private readonly batches: RecordBatch[] = [];
  /** The row that each batch starts with. */
  private readonly starts: number[] = [];
  private last = 0;

  add(batch: RecordBatch): void {
    if (batch.numRows === 0) {
      return;
    }
    this.starts.push(this.rows);
    this.batches.push(batch);
    this.rows += batch.numRows;
  }

  get columns(): number {
    return this.schema?.fields.length ?? 0;
  }

  /** A cell as text; null where it has no value. */
  text(row: number, column: number): string | null {
    const at = this.find(row);
    const vector = this.batches[at]?.getChildAt(column);
    return vector ? textOf(vector, row - (this.starts[at] ?? 0)) : null;
  }

  /** Calls `visit` with every vector of a column and the row that it starts with, until it says false. */
  each(
    column: number,
    visit: (vector: NonNullable<ReturnType<RecordBatch["getChildAt"]>>, start: number) => boolean,
  ): void {
    for (const [at, batch] of this.batches.entries()) {
      const vector = batch.getChildAt(column);
      if (vector && !visit(vector, this.starts[at] ?? 0)) {
        return;
      }
    }
  }

  /** The batch that holds `row`. Rows that are asked for are mostly beside each other. */
  private find(row: number): number {
    const holds = (at: number) => {
      const start = this.starts[at];
      return start !== undefined && row >= start && row < start + (this.batches[at]?.numRows ?? 0);
    };
    if (holds(this.last)) {
      return this.last;
    }
    let [low, high] = [0, this.starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.starts[middle] ?? 0) <= row) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    this.last = low;
    return low;
  }
}
