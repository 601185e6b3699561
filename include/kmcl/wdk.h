/* kmcl/wdk.h - all that kmcl knows of a Windows kernel, in one header.
 *
 * With include/wdk in the include path, driver sources find it under the names they use (<ntddk.h>,
 * <wdm.h>, <ntifs.h>, ...). Plain programs need none of this: kmcl/kmcl.h is enough.
 */
#ifndef KMCL_WDK_H
#define KMCL_WDK_H

#include <kmcl/nt.h>
#include <kmcl/wdk/debug.h>
#include <kmcl/wdk/events.h>
#include <kmcl/wdk/interlocked.h>
#include <kmcl/wdk/lists.h>
#include <kmcl/wdk/locks.h>
#include <kmcl/wdk/macros.h>
#include <kmcl/wdk/mdl.h>
#include <kmcl/wdk/pool.h>
#include <kmcl/wdk/work_items.h>

#endif /* KMCL_WDK_H */
