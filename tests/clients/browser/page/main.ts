// What tests find in the page: the client, and Arrow to make parameters with.
import * as arrow from "apache-arrow";
import { Client, failure } from "./client.ts";

const jammi = { arrow, Client, failure };

declare global {
  interface Window {
    jammi: typeof jammi;
  }
}

window.jammi = jammi;
