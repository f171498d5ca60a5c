/* A stack of a known depth with frame pointers, whatever the rest of the program is built with. */

#include <stdint.h>
#include <time.h>

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Calls itself `depth` times; there it reads the clock until `until`, and writes down pairs of readings that are
   `least` ns apart or more, at most `most` of them. How many it has written. */
uint64_t gp_deep(uint32_t depth, uint64_t until, uint64_t least, uint64_t (*gaps)[2], uint64_t most) {
    if (depth > 0) {
        uint64_t found = gp_deep(depth - 1, until, least, gaps, most);
        __asm__ volatile("" ::: "memory"); /* not a jump */
        return found;
    }
    uint64_t found = 0;
    for (uint64_t last = now_ns(); last < until;) {
        uint64_t now = now_ns();
        if (now - last >= least && found < most) {
            gaps[found][0] = last;
            gaps[found][1] = now;
            found++;
        }
        last = now;
    }
    return found;
}
