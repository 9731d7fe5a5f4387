//! What `ox` says about itself to shells and to `man`.

use std::io::Write;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::Failure;

/// `ox completion`.
pub fn completion(shell: clap_complete::Shell, out: &mut dyn Write) -> Result<(), Failure> {
    // The generator panics when its writer fails, as at a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ox", &mut script);
    out.write_all(&script)?;
    Ok(())
}

/// `ox man`: the page of `ox`, or of one of its verbs.
pub fn man(verb: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let page = match verb {
        None => command,
        Some(verb) => command.find_subcommand(verb).cloned().ok_or_else(|| {
            Failure::Usage(format!("ox has no verb {verb:?}; `ox help` lists them"))
        })?,
    };
    clap_mangen::Man::new(page).render(out)?;
    Ok(())
}
