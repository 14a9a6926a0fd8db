#ifndef DAEMON_MEMORY_H
#define DAEMON_MEMORY_H
/* Give memory back that is not needed while idle: free heap pages, and pages of programs and libraries that only start-up or the
 * last build touched (clean, read-only file pages: the kernel maps them again from its page cache when they are used).
 * Any thread; takes about a millisecond. */
void memory_give_back(void);
#endif
