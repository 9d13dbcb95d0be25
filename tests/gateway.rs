//! The gateway, from inside and from outside: what it lets through, what it refuses, how it behaves, and what it writes down.

mod attacks; // what must stay out of reach, each with a control that reaches it
mod behaviours; // how connections go: halves, cuts, many, large, idle
mod names; // resolvers, and names that are none
mod policy; // --allow, --deny, --allow-loopback
mod proxies; // the machine's proxy, and builds that know of none
mod tools; // the programs that people fetch with
mod world; // a machine in miniature, in which every address is served
