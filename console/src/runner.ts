// Runs one statement at a time, and tells how far it is.
import { RecordBatch } from "apache-arrow";
import { RESULT_BYTES_MAX, Result } from "./result.ts";
import { type Failure, failure, type Server } from "./server.ts";

export type Outcome = "done" | "cancelled" | "cut" | { failure: Failure };

/** A statement that runs or ran. */
export interface Run {
  /** Whether its rows are shown as they come, or read as a plan at the end. */
  kind: "rows" | "plan";
  result: Result;
  started: number;
  /** Milliseconds. */
  elapsed: number;
  outcome: Outcome | null;
}

export class Runner {
  private abort: AbortController | null = null;

  constructor(
    private readonly server: Server,
    private readonly onProgress: (run: Run) => void,
  ) {}

  get running(): boolean {
    return this.abort !== null;
  }

  /** Stops what runs, here and in the server. */
  cancel(): void {
    this.abort?.abort();
  }

  /** Stops what runs, and never tells of it again. */
  drop(): void {
    this.cancel();
    this.abort = null;
  }

  /** Runs a statement to its end; one that runs already is stopped first. */
  async run(statement: string, kind: Run["kind"]): Promise<Run> {
    this.cancel();
    const abort = new AbortController();
    this.abort = abort;
    const result = new Result();
    const run: Run = { kind, result, started: performance.now(), elapsed: 0, outcome: null };
    this.onProgress(run);
    try {
      run.outcome = await this.read(statement, run, abort);
    } catch (error) {
      const failed = failure(error, this.server.url);
      run.outcome = abort.signal.aborted || failed.cancelled ? "cancelled" : { failure: failed };
    }
    run.elapsed = performance.now() - run.started;
    // A statement that was stopped for another one must not end that.
    if (this.abort === abort) {
      this.abort = null;
      this.onProgress(run);
    }
    return run;
  }

  private async read(statement: string, run: Run, abort: AbortController): Promise<Outcome> {
    const { result } = run;
    const onBytes = (bytes: number) => {
      result.bytes += bytes;
    };
    for await (const part of this.server.run(statement, abort.signal, onBytes)) {
      if (part instanceof RecordBatch) {
        result.add(part);
      } else {
        result.schema = part;
      }
      run.elapsed = performance.now() - run.started;
      if (abort === this.abort) {
        this.onProgress(run);
      }
      if (result.bytes > RESULT_BYTES_MAX) {
        result.cut = true;
        return "cut";
      }
    }
    return abort.signal.aborted ? "cancelled" : "done";
  }
}
