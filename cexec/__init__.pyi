# The names of `__init__.py` as type checkers see them.
from cexec.client.aio.job_streams import JobInput as JobInput
from cexec.client.aio.job_streams import JobOutput as JobOutput
from cexec.errors import CannotPickleError as CannotPickleError
from cexec.errors import CexecError as CexecError
from cexec.errors import DisconnectedError as DisconnectedError
from cexec.errors import GroupError as GroupError
from cexec.errors import JobCancelledError as JobCancelledError
from cexec.errors import KeyFileError as KeyFileError
from cexec.errors import LocalError as LocalError
from cexec.errors import NoWorkerError as NoWorkerError
from cexec.errors import ProtocolError as ProtocolError
from cexec.errors import RefusedError as RefusedError
from cexec.errors import RevokedError as RevokedError
from cexec.errors import StalledError as StalledError
from cexec.errors import UsageError as UsageError
from cexec.python.async_client import AsyncClient as AsyncClient
from cexec.python.blocking_job import BlockingJob as BlockingJob
from cexec.python.calls.pool_errors import InitializerError as InitializerError
from cexec.python.calls.pool_errors import LostCallError as LostCallError
from cexec.python.completed import Completed as Completed
from cexec.python.completed import Usage as Usage
from cexec.python.executor import Executor as Executor
from cexec.python.membership import ClusterChange as ClusterChange
from cexec.python.membership import ClusterWorker as ClusterWorker
from cexec.python.started_job import Job as Job
from cexec.python.sync_client import Client as Client

__version__: str
PUBLIC: dict[str, str]
