// Which colour a state has. One place, so that a state looks the same on every page.

export function stateKind(state: string): "good" | "warn" | "bad" {
  switch (state) {
    case "running":
    case "connected":
    case "enrolled":
    case "caught-up":
    case "active":
    case "healthy":
    case "stable":
    case "complete-commit":
    case "done":
      return "good";
    case "stopped":
    case "stuck":
    case "revoked":
    case "diverged":
    case "gap":
    case "fenced":
    case "failing":
    case "dead":
    case "failed":
      return "bad";
    default:
      return "warn";
  }
}
