//! A key-value server with tracepoints, traced from another terminal by itself
