/* setjmp returns twice, which no function of Rust may do. */
#include <setjmp.h>

int sleds_guarded(void (*body)(void *buffer, void *argument), void *argument) {
    sigjmp_buf buffer;
    if (sigsetjmp(buffer, 1))
        return 1;
    body(buffer, argument);
    return 0;
}

void sleds_jump(void *buffer) {
    siglongjmp(*(sigjmp_buf *)buffer, 1);
}
