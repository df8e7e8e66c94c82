//! What happens to the machine of a node that an operator takes out of the cluster: it is stopped and stays down, and one
//! with an empty disk takes its place.
//!
//! It must never take a disk away before the node was unregistered: until then it may hold the only copy.

use std::time::Duration;

use crate::faults::Faults;
use crate::machine::Machine;
use crate::summary::Summary;
use crate::workload::Control;
use crate::workload::retire::Stage;

/// Does what the operator waits for.
pub(crate) fn tick(
    now: Duration,
    control: &Control,
    machines: &mut [Machine],
    faults: &mut Faults,
    summary: &mut Summary,
) {
    let index = |node: i32| usize::try_from(node - 1).expect("nodes are counted from 1");
    let running = machines.iter().filter(|machine| machine.is_running());
    control.set_running(running.map(|machine| machine.id));
    match control.stage() {
        Stage::Member | Stage::Emptied(_) | Stage::Gone(_) => {}
        Stage::Leaving(node) => {
            faults.keep_down(now, index(node), machines);
            if !machines[index(node)].is_up() {
                control.set_stage(Stage::Gone(node));
            }
        }
        Stage::Returning(node) => {
            faults.let_up(index(node));
            control.set_stage(Stage::Member);
        }
        Stage::Joining(node) => {
            summary.count("joined");
            machines[index(node)].begin_anew();
            faults.let_up(index(node));
            control.set_stage(Stage::Member);
        }
    }
}
