// Asks for the API key where the server asks for one.
import { h } from "./dom.ts";

/** A form that is there while a key is wanted. The key is not kept in it, nor by the browser. */
export class KeyBar {
  readonly element: HTMLFormElement;
  private readonly input = h("input", {
    id: "key",
    type: "password",
    spellcheck: false,
    placeholder: "jammi_…",
    attrs: { autocomplete: "off" },
  });

  constructor(onKey: (key: string) => void) {
    this.element = h(
      "form",
      { class: "key", hidden: true },
      h("label", { htmlFor: "key" }, "API key"),
      this.input,
      h("button", { type: "submit" }, "Sign in"),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = this.input.value.trim();
      this.input.value = "";
      if (key !== "") {
        onKey(key);
      }
    });
  }

  ask(): void {
    this.element.hidden = false;
  }

  /** Takes what is typed next, if a key is wanted. */
  focus(): boolean {
    const wanted = !this.element.hidden;
    if (wanted) {
      this.input.focus();
    }
    return wanted;
  }

  hide(): void {
    this.element.hidden = true;
  }
}
