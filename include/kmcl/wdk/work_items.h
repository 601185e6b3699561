/* kmcl/wdk/work_items.h - work that is done later, on a thread that may block.
 *
 * A work item is queued from anywhere at <= DISPATCH; its routine runs at PASSIVE_LEVEL on a thread of
 * the library's, which has as many as block at a time. One item is queued once: again only when its
 * routine has begun (checked: aborts). The routine may queue the item again, or free it.
 */
#ifndef KMCL_WDK_WORK_ITEMS_H
#define KMCL_WDK_WORK_ITEMS_H

#include <kmcl/nt.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct _IO_WORKITEM *PIO_WORKITEM;
typedef VOID IO_WORKITEM_ROUTINE(_In_ PDEVICE_OBJECT DeviceObject, _In_opt_ PVOID Context);
typedef IO_WORKITEM_ROUTINE *PIO_WORKITEM_ROUTINE;
typedef VOID IO_WORKITEM_ROUTINE_EX(_In_ PVOID IoObject, _In_opt_ PVOID Context,
                                    _In_ PIO_WORKITEM IoWorkItem);
typedef IO_WORKITEM_ROUTINE_EX *PIO_WORKITEM_ROUTINE_EX;

typedef enum _WORK_QUEUE_TYPE {
    CriticalWorkQueue = 0,
    DelayedWorkQueue = 1,
    HyperCriticalWorkQueue = 2
} WORK_QUEUE_TYPE;

/* NULL for want of memory. `DeviceObject` goes to the routine and is not looked at. */
PIO_WORKITEM IoAllocateWorkItem(_In_opt_ PDEVICE_OBJECT DeviceObject);
/* Not while it is queued (checked: aborts). */
VOID IoFreeWorkItem(_In_ PIO_WORKITEM IoWorkItem);
/* The queue type means nothing here: there is always a thread. */
VOID IoQueueWorkItem(_Inout_ PIO_WORKITEM IoWorkItem, _In_ PIO_WORKITEM_ROUTINE WorkerRoutine,
                     _In_ WORK_QUEUE_TYPE QueueType, _In_opt_ PVOID Context);
VOID IoQueueWorkItemEx(_Inout_ PIO_WORKITEM IoWorkItem, _In_ PIO_WORKITEM_ROUTINE_EX WorkerRoutine,
                       _In_ WORK_QUEUE_TYPE QueueType, _In_opt_ PVOID Context);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_WORK_ITEMS_H */
