//! The gracepoint command line
