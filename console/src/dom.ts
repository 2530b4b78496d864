// Makes elements. Text is always text: nothing here parses markup.

type Child = Node | string | null | undefined;
type Properties<Name extends keyof HTMLElementTagNameMap> = Partial<
  Omit<HTMLElementTagNameMap[Name], "style" | "dataset">
> & { attrs?: Record<string, string>; class?: string };

/** An element with properties, attributes and children. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  { attrs = {}, class: className, ...properties }: Properties<Name> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  if (className !== undefined) {
    element.className = className;
  }
  Object.assign(element, properties);
  for (const [name, value] of Object.entries(attrs)) {
    element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A button that does `act`. */
export function button(
  label: string,
  act: () => void,
  properties: Properties<"button"> = {},
): HTMLButtonElement {
  const made = h("button", { type: "button", ...properties }, label);
  made.addEventListener("click", act);
  return made;
}

/** A number with thousands separated. */
export function grouped(count: number): string {
  return count.toLocaleString("en");
}

/** `1 row`, `2 rows`. */
export function counted(count: number, what: string): string {
  return `${grouped(count)} ${what}${count === 1 ? "" : "s"}`;
}
