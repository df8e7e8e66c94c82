//! No node lives by metadata of a feature level above its binary's.
//!
//! A node that meets such a thing ends by itself, which no node may do without a cause; this looks at what it shows before.

use headwater::metadata::features::Level;

use super::Violation;

pub(crate) fn check(node: i32, binary: Level, in_force: Level) -> Result<(), Violation> {
    if in_force <= binary {
        return Ok(());
    }
    let what = format!("n{node} is of level {binary}, and its cluster at level {in_force}");
    Err(Violation::new("no node is behind the level in force", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_node_in_a_newer_cluster_is_found() {
        assert_eq!(check(1, Level(2), Level(1)), Ok(()));
        assert_eq!(check(1, Level(2), Level(2)), Ok(()));
        assert!(check(1, Level(1), Level(2)).is_err());
    }
}
