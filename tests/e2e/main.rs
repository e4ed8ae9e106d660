//! The scenarios, on a real cluster, with the programs that users have. The ids at the beginning of a test's name say which promises
//! it shows (`tests::scenarios`).

mod another_server;
mod bulk;
mod crowds;
mod datagrams;
mod deploy;
mod differences;
mod differential;
mod dual_stack;
mod environment;
mod incoming;
mod link;
mod manual;
mod mistakes;
mod names;
mod options;
mod outgoing;
mod programs;
mod refusals;
mod resolvers;
mod rootless;
mod security;
mod start;
mod surroundings;
mod transparent;
