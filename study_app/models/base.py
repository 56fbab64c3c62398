"""What the tables are made of: names of constraints, and kinds of columns."""

from typing import Annotated

from sqlalchemy import BigInteger, MetaData, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

CHOICE_CHECK = "choice IN ('left', 'right', 'tie', 'skip')"
SIDE_CHECK = "{} IN ('left', 'right')"

Key = Annotated[int, mapped_column(primary_key=True)]
Millis = Annotated[int, mapped_column(BigInteger)]
Sha256 = Annotated[str, mapped_column(String(64))]
Token = Annotated[str, mapped_column(String(32), unique=True)]  # 128 bits, base64url
Side = Annotated[str, mapped_column(String(5))]
Picked = Annotated[str, mapped_column(String(5))]  # a side, a tie, or none


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
