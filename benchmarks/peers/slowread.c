/* Makes reading a RAPL counter take as long as on a real machine, where the kernel asks the CPU and waits for it.
 *
 * Loaded with LD_PRELOAD. The files of SLOW_FILES (device:inode, separated by commas) take SLOW_S seconds a read, during
 * which the CPU is busy; the value is taken in the middle. The empty read that ends a file costs nothing, as in sysfs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 16 };
static struct { unsigned long long device, inode; } slow[MOST];
static int count;
static double half_s;

__attribute__((constructor)) static void load(void)
{
    const char *list = getenv("SLOW_FILES"), *seconds = getenv("SLOW_S");
    while (list && count < MOST && sscanf(list, "%llu:%llu", &slow[count].device, &slow[count].inode) == 2) {
        count++;
        list = strchr(list, ',');
        list = list ? list + 1 : NULL;
    }
    half_s = seconds ? atof(seconds) / 2 : 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait_half(void)
{
    double end = now() + half_s;
    while (now() < end) { }
}

static int is_slow(int fd)
{
    struct stat status;
    if (count == 0 || fstat(fd, &status) != 0)
        return 0;
    for (int i = 0; i < count; i++)
        if (slow[i].inode == status.st_ino && slow[i].device == status.st_dev)
            return 1;
    return 0;
}

#define SLOWED(wanted, expression)       \
    ssize_t result;                      \
    int waits = (wanted) && is_slow(fd); \
    if (waits)                           \
        wait_half();                     \
    result = (expression);               \
    if (waits)                           \
        wait_half();                     \
    return result

#define NEXT(name) (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *buffer, size_t size)
{
    static ssize_t (*next)(int, void *, size_t);
    if (!next)
        next = NEXT(read);
    SLOWED(count > 0 && lseek(fd, 0, SEEK_CUR) == 0, next(fd, buffer, size));
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    static ssize_t (*next)(int, void *, size_t, off_t);
    if (!next)
        next = NEXT(pread);
    SLOWED(offset == 0, next(fd, buffer, size, offset));
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset)
{
    static ssize_t (*next)(int, void *, size_t, off64_t);
    if (!next)
        next = NEXT(pread64);
    SLOWED(offset == 0, next(fd, buffer, size, offset));
}
