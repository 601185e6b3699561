/* What a driver's source looks like from the outside: kernel headers, KMCL under its own name. */
#include <ntddk.h>
#include <vmbuskernelmodeclientlibapi.h>

int main(void) {
  PVOID memory = ExAllocatePool2(POOL_FLAG_NON_PAGED, 64, 'tseT');
  VMBCHANNEL channel = NULL;
  NTSTATUS status = VmbChannelAllocate(NULL, FALSE, &channel);
  if (memory == NULL) return 1;
  ExFreePoolWithTag(memory, 'tseT');
  return status == STATUS_INVALID_PARAMETER_1 ? 0 : 2;
}
