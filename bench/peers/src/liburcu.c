/*
 * One flavour of liburcu, measured from the inside: loops are here, so that the read side is
 * inlined, as in a C program that is built for speed. Compiled once per flavour, with FLAVOUR
 * and HEADER defined by build.rs.
 */
#define _GNU_SOURCE
#define _LGPL_SOURCE
#define URCU_INLINE_SMALL_FUNCTIONS
#define URCU_API_MAP
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include HEADER

#define PASTE(a, b, c) a##b##c
#define NAMED(flavour, name) PASTE(gp_urcu_, flavour, name)
#define FN(name) NAMED(FLAVOUR, name)

#define compiler_barrier() __asm__ __volatile__("" ::: "memory")

void FN(_register)(void) { rcu_register_thread(); }
void FN(_unregister)(void) { rcu_unregister_thread(); }
void FN(_lock)(void) { rcu_read_lock(); }
void FN(_unlock)(void) { rcu_read_unlock(); }
void FN(_synchronize)(void) { synchronize_rcu(); }
void FN(_barrier)(void) { rcu_barrier(); }

/* A thread that sleeps must say so, or grace periods of qsbr wait for it. */
#ifdef FLAVOUR_bp
void FN(_offline)(void) {}
void FN(_online)(void) {}
void FN(_quiescent)(void) {}
#else
void FN(_offline)(void) { rcu_thread_offline(); }
void FN(_online)(void) { rcu_thread_online(); }
void FN(_quiescent)(void) { rcu_quiescent_state(); }
#endif

void FN(_pairs)(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		rcu_read_lock();
		compiler_barrier();
		rcu_read_unlock();
		compiler_barrier();
	}
}

/* The same, and a quiescent state after each: what qsbr needs now and then, others never. */
void FN(_quiet_pairs)(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		rcu_read_lock();
		compiler_barrier();
		rcu_read_unlock();
		FN(_quiescent)();
		compiler_barrier();
	}
}

static uint64_t target = 1;
static uint64_t *published = &target;

uint64_t FN(_loads)(uint64_t n)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < n; i++) {
		rcu_read_lock();
		sum += *(volatile uint64_t *)rcu_dereference(published);
		rcu_read_unlock();
		compiler_barrier();
	}
	return sum;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct timed {
	struct rcu_head head;
	uint64_t ran_at;
};

static void note_time(struct rcu_head *head)
{
	struct timed *timed = (struct timed *)head;

	__atomic_store_n(&timed->ran_at, now_ns(), __ATOMIC_RELEASE);
}

/* From call_rcu to its callback, in nanoseconds. The callback reads the clock, so how the caller
 * waits for it does not count; it sleeps, because the machine is to be idle. */
uint64_t FN(_call_latency)(void)
{
	struct timed timed = { .ran_at = 0 };
	struct timespec nap = { .tv_nsec = 20000 };
	uint64_t begin = now_ns();

	call_rcu(&timed.head, note_time);
	FN(_offline)();
	while (!__atomic_load_n(&timed.ran_at, __ATOMIC_ACQUIRE))
		nanosleep(&nap, NULL);
	FN(_online)();
	return timed.ran_at - begin;
}

/* An object of 64 bytes, malloc's of which is freed by the callback; `freed` is one more then. */
struct object {
	struct rcu_head head;
	uint64_t content[6];
};

static uint64_t freed;

static void free_object(struct rcu_head *head)
{
	/* One worker runs all callbacks: no other writer. */
	__atomic_store_n(&freed, __atomic_load_n(&freed, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
	free((struct object *)head);
}

uint64_t FN(_freed)(void) { return __atomic_load_n(&freed, __ATOMIC_RELAXED); }

void FN(_defer)(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct object *object = malloc(sizeof(*object));

		if (!object)
			abort();
		object->content[0] = i;
		call_rcu(&object->head, free_object);
	}
}
