//! The `kiln` program.

mod cli {
    pub mod data;
    pub mod term;
}

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    Data(cli::data::DataArgs),
}

#[expect(clippy::print_stderr)]
fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let Command::Data(args) = cli.command;
    match cli::data::run(args, cli.json) {
        Ok(()) => 0.into(),
        Err(e) => {
            eprintln!("error: {e}");
            if let Some(hint) = e.hint() {
                eprintln!("hint: {hint}");
            }
            e.exit_code().into()
        }
    }
}
