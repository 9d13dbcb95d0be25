// `cargo vendor` wants a package to have a target; this is it.
