//! Figures of the trace path for `scripts/bench traces`: each word measures one part beside its raw limit, in one run.
//!
//! Prints one line of JSON a figure on standard output, and what it does on standard error.

fn main() {
    // cargo adds `--bench` where it runs this itself
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => eprintln!("benches/traces: nothing to do; scripts/bench traces names the parts"),
        unknown => {
            eprintln!("benches/traces: unknown part {unknown:?}");
            std::process::exit(64);
        }
    }
}
