/* A disk that is slow while a file exists: preloaded into PostgreSQL, which flushes its WAL by fdatasync. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define SLOW_MICROSECONDS 700000

int fdatasync(int file) {
    int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *slow_while = getenv("SLOW_FLUSH_WHILE");
    if (slow_while != NULL && access(slow_while, F_OK) == 0) {
        usleep(SLOW_MICROSECONDS);
    }
    return flush(file);
}
