// Which tenant this tab acts for.
import { button, h } from "./dom.ts";

const REMEMBERED = "jammi-tenant";

/** Tells, binds and unbinds; each throws a failure's text. */
interface Binding {
  tenant: () => Promise<string | null>;
  bind: (tenant: string) => Promise<string>;
  unbind: () => Promise<void>;
}

export class TenantBar {
  readonly element: HTMLFormElement;
  private readonly input: HTMLInputElement;
  private readonly problem = h("span", {
    class: "problem",
    id: "tenant-problem",
    attrs: { role: "alert" },
  });
  private readonly status = h("output", { class: "tenant-status", attrs: { "aria-live": "polite" } });
  private readonly clear: HTMLButtonElement;

  constructor(
    private readonly binding: Binding,
    private readonly onBound: (tenant: string | null) => void,
  ) {
    this.input = h("input", {
      id: "tenant",
      spellcheck: false,
      placeholder: "UUID of a tenant",
      attrs: { autocomplete: "off", "aria-describedby": "tenant-problem" },
    });
    this.clear = button("Unbind", () => void this.unbind(), { class: "quiet", hidden: true });
    this.element = h(
      "form",
      { class: "tenant" },
      h("label", { htmlFor: "tenant" }, "Tenant"),
      this.input,
      h("button", { type: "submit" }, "Bind"),
      this.clear,
      this.status,
      this.problem,
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.bind(this.input.value.trim());
    });
    this.show(null);
  }

  /** Binds the tenant that this tab had before it was loaded anew. */
  async restore(): Promise<void> {
    const tenant = sessionStorage.getItem(REMEMBERED);
    if (tenant !== null) {
      this.input.value = tenant;
      await this.bind(tenant);
    }
  }

  /** Shows what a statement may have bound. */
  async follow(): Promise<void> {
    await this.attempt(async () => {
      const bound = await this.binding.tenant();
      if (bound !== sessionStorage.getItem(REMEMBERED)) {
        this.settle(bound);
      }
    });
  }

  private async bind(tenant: string): Promise<void> {
    if (tenant === "") {
      return this.unbind();
    }
    await this.attempt(async () => {
      this.settle(await this.binding.bind(tenant));
    });
  }

  private async unbind(): Promise<void> {
    await this.attempt(async () => {
      await this.binding.unbind();
      this.settle(null);
    });
  }

  private settle(tenant: string | null): void {
    if (tenant === null) {
      sessionStorage.removeItem(REMEMBERED);
    } else {
      sessionStorage.setItem(REMEMBERED, tenant);
    }
    this.input.value = tenant ?? "";
    this.show(tenant);
    this.onBound(tenant);
  }

  private async attempt(act: () => Promise<void>): Promise<void> {
    this.problem.textContent = "";
    this.input.removeAttribute("aria-invalid");
    try {
      await act();
    } catch (error) {
      this.problem.textContent = error instanceof Error ? error.message : String(error);
      this.input.setAttribute("aria-invalid", "true");
      this.input.focus();
    }
  }

  private show(tenant: string | null): void {
    this.clear.hidden = tenant === null;
    document.title = tenant === null ? "Jammi" : `${tenant.slice(0, 8)}… · Jammi`;
    document.documentElement.style.setProperty("--tenant-hue", String(hue(tenant)));
    document.documentElement.classList.toggle("bound", tenant !== null);
    this.status.replaceChildren(
      h("span", { class: "dot", attrs: { "aria-hidden": "true" } }),
      tenant === null ? "No tenant: shared rows only" : "Bound: own and shared rows",
    );
  }
}

/** A hue by which a person tells tabs of several tenants apart. */
function hue(tenant: string | null): number {
  let hash = 0;
  for (const letter of tenant ?? "") {
    hash = (hash * 31 + letter.charCodeAt(0)) % 360;
  }
  return hash;
}
