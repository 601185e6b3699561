/* The name under which driver sources include KMCL. Everything is in kmcl/kmcl.h. */
#ifndef KMCL_VMBUSKERNELMODECLIENTLIBAPI_H
#define KMCL_VMBUSKERNELMODECLIENTLIBAPI_H

#include <kmcl/kmcl.h>

#endif /* KMCL_VMBUSKERNELMODECLIENTLIBAPI_H */
