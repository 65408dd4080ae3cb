/* Enough of a start for a Cortex-M4F in QEMU's board mps2-an386: vectors, FPU, memory, semihosted output.
   timer 0 counts at 25 MHz of the board's virtual time; under -icount shift=0 that is one tick per 40 instructions. */
#include <stdint.h>
#include <stdio.h>

extern uint32_t _stack_top, _data_from, _data_begin, _data_end, _bss_begin, _bss_end;
extern void initialise_monitor_handles(void);
extern int main(void);
void _exit(int);
void _init(void) {}
void _fini(void) {}

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define TIMER ((volatile uint32_t *)0x40000000u) /* control, value, reload */

uint32_t board_ticks(void) { return 0xFFFFFFFFu - TIMER[1]; }

static void reset(void) {
  CPACR |= 0xFu << 20; /* FPU on: Armv7-M reference manual, B3.2.20 */
  __asm volatile("dsb\n isb");
  uint32_t *from = &_data_from;
  for (uint32_t *to = &_data_begin; to < &_data_end;) *to++ = *from++;
  for (uint32_t *to = &_bss_begin; to < &_bss_end;) *to++ = 0;
  TIMER[2] = TIMER[1] = 0xFFFFFFFFu;
  TIMER[0] = 1;
  initialise_monitor_handles();
  int result = main();
  fflush(stdout);
  _exit(result);
}

static void fault(void) {
  for (;;) __asm volatile("bkpt 0");
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))&_stack_top, reset, fault, fault, fault, fault, fault};
