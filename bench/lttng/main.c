/*
 * main ROUNDS CHUNK: waits until the event is on, then prints for each round the nanoseconds of an
 * empty loop and of as many events.
 */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "tp.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	const char *name = "sixteen bytes ok";
	const struct timespec wait = { 0, 5000000 };
	long rounds = argc > 1 ? atol(argv[1]) : 1;
	uint64_t chunk = argc > 2 ? (uint64_t)atol(argv[2]) : 1;
	int tries = 2000;

	while (!lttng_ust_tracepoint_enabled(gpbench, sample)) {
		if (tries-- == 0) {
			fprintf(stderr, "the event was not switched on within 10 s\n");
			return 1;
		}
		nanosleep(&wait, NULL);
	}
	for (long round = 0; round < rounds; round++) {
		uint64_t begin = now(), middle, end;

		for (uint64_t i = 0; i < chunk; i++)
			__asm__ volatile("" : "+r"(i));
		middle = now();
		for (uint64_t i = 0; i < chunk; i++) {
			__asm__ volatile("" : "+r"(i), "+r"(name));
			lttng_ust_tracepoint(gpbench, sample, i, i ^ 1, name);
		}
		end = now();
		printf("%llu %llu\n", (unsigned long long)(middle - begin), (unsigned long long)(end - middle));
	}
	return 0;
}
