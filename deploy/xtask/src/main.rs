//! `cargo xtask`: the project's commands, one file each. This file only picks one and reports how it ended.
//!
//! It owns the list of commands and their help. It must stay light (every command waits for it to be built) and must
//! never do a command's work itself.

// A tool for the terminal: it prints, and it reaches the machine directly. The doors of `.clippy.toml` are the node's.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod bench;
mod build;
mod check;
mod codegen;
mod compat;
mod demo;
mod faults;
mod fuzz;
mod jars;
mod modules;
mod pack;
mod place;
mod sim;
mod step;
mod test;
mod tools;
mod totals;
mod ui;

use std::process::ExitCode;

/// One command: what a user types, what he reads about it, and what runs.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

/// Every command, in the order of the help.
const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        arguments: "[--once] [--flights FILE] [--expected FILE]",
        about: "build it all and run the main job, end to end, on real data; --once checks the answer and exits",
        run: demo::run,
    },
    Command {
        name: "test",
        arguments: "",
        about: "install what the tests need, build everything, run every test, print the totals",
        run: test::run,
    },
    Command {
        name: "check",
        arguments: "[--deny]",
        about: "format, lints, tidy, rings 1 and 2, docs; --deny also licences and advisories of dependencies",
        run: check::run,
    },
    Command {
        name: "sim",
        arguments: "[--seeds N] [--seed S]",
        about: "simulate a cluster on N seeds; also: sim replay|run|meta ARGUMENTS, sim known-bugs [NAME...]",
        run: sim::run,
    },
    Command {
        name: "build",
        arguments: "",
        about: "the release binary, with the built-in modules and the web UI inside",
        run: build::run,
    },
    Command {
        name: "modules",
        arguments: "",
        about: "build every WebAssembly module into target/modules (GUEST_TOOLCHAIN=auto|rustup|debian)",
        run: modules::run,
    },
    Command {
        name: "ui",
        arguments: "[--types]",
        about: "build the web UI into web-ui/dist; --types writes the API's description and the UI's types anew",
        run: ui::run,
    },
    Command {
        name: "codegen",
        arguments: "[--golden | --check]",
        about: "write the Kafka messages anew from Kafka's definitions (needs Maven); --check only compares",
        run: codegen::run,
    },
    Command {
        name: "bench",
        arguments: "[kafka | ARGUMENTS...]",
        about: "build the release binary, run `headwater bench ARGUMENTS...`; without any all of it, as a table; kafka: beside Apache Kafka",
        run: bench::run,
    },
    Command {
        name: "compat",
        arguments: "[CLIENT...]",
        about: "run other people's Kafka clients, by their packages, against one node and three; write the table of what works",
        run: compat::run,
    },
    Command {
        name: "faults",
        arguments: "[run|transactions|groups|failover|rolling|power] [--minutes N] [--seed S] [--nodes N] [--release]",
        about: "put real nodes through real faults, and judge what their clients were told (root; installs tools by apt)",
        run: faults::run,
    },
    Command {
        name: "fuzz",
        arguments: "[modules|answers|host_calls] [--minutes N] [--seed S]",
        about: "damaged modules, answers and host calls against the transforms' decoders; a failure names the seed that repeats it",
        run: fuzz::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    if is_help(name) {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("cargo xtask: no command `{name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    if rest.first().is_some_and(|first| is_help(first)) && !["bench", "faults"].contains(&command.name) {
        println!(
            "cargo xtask {} {}\n\n{}",
            command.name, command.arguments, command.about
        );
        return ExitCode::SUCCESS;
    }
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cargo xtask {name}: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "help" | "--help" | "-h")
}

fn help() -> String {
    let mut text = String::from("cargo xtask COMMAND [ARGUMENTS]\n\n");
    for command in COMMANDS {
        let call = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("  {call:<24}{}\n", command.about));
    }
    text
}

/// Refuses every argument but the flags listed, and says which of them were given, in the order of the list.
pub(crate) fn flags<const N: usize>(args: &[String], known: [&str; N]) -> anyhow::Result<[bool; N]> {
    let mut given = [false; N];
    for argument in args {
        let Some(index) = known.iter().position(|flag| flag == argument) else {
            let hint = if N == 0 {
                "it takes none".to_owned()
            } else {
                format!("known: {}", known.join(" "))
            };
            anyhow::bail!("unknown argument `{argument}` ({hint})");
        };
        given[index] = true;
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_known_or_refused() {
        let args = ["--b".to_owned()];
        assert_eq!(flags(&args, ["--a", "--b"]).expect("known"), [false, true]);
        let refused = flags(&args, ["--a"]).expect_err("unknown").to_string();
        assert!(refused.contains("`--b`") && refused.contains("--a"), "{refused}");
    }

    #[test]
    fn help_names_each_command_once() {
        let text = help();
        for command in COMMANDS {
            assert_eq!(
                text.matches(&format!("\n  {} ", command.name)).count(),
                1,
                "{}",
                command.name
            );
        }
    }
}
