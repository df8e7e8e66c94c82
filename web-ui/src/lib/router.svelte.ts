// The address bar as state: one path, split into parts. The node answers every path that is not its API with the same page.

let path = $state(location.pathname);

addEventListener("popstate", () => (path = location.pathname));

/** What was typed by hand may be no encoding at all: then it stands for itself. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const router = {
  /** Path parts, decoded: "/topics/a%2Fb" is ["topics", "a/b"]. */
  get parts(): string[] {
    return path
      .split("/")
      .filter((part) => part !== "")
      .map(decoded);
  },
  go(to: string): void {
    history.pushState(null, "", to);
    path = location.pathname;
    scrollTo(0, 0);
  },
};

/** Makes plain links stay in the page; a click with a modifier opens a tab as everywhere. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element).closest("a");
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (link.pathname.startsWith("/api/") || link.pathname === "/metrics") return;
  event.preventDefault();
  router.go(link.pathname);
}

export const to = {
  affected: (only: string) => `/cluster/${encodeURIComponent(only)}`,
  topic: (name: string) => `/topics/${encodeURIComponent(name)}`,
  group: (name: string) => `/groups/${encodeURIComponent(name)}`,
  module: (name: string, version: string) => `/modules/${encodeURIComponent(name)}/${encodeURIComponent(version)}`,
  transform: (name: string) => `/transforms/${encodeURIComponent(name)}`,
};
