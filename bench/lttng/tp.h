/* The tracepoint of the peer: the same fields as `bench:sample`. Read several times by LTTng's headers. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER gpbench
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./tp.h"

#if !defined(GRACEPOINT_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define GRACEPOINT_TP_H

#include <lttng/tracepoint.h>
#include <stdint.h>

LTTNG_UST_TRACEPOINT_EVENT(
	gpbench, sample,
	LTTNG_UST_TP_ARGS(uint64_t, number, uint64_t, size, const char *, name),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(uint64_t, number, number)
		lttng_ust_field_integer(uint64_t, size, size)
		lttng_ust_field_string(name, name)
	)
)

#endif

#include <lttng/tracepoint-event.h>
